//! What names of images in registries stood for when they were last looked up.

use super::{Catalog, CatalogError, During};
use rusqlite::{OptionalExtension, params};

impl Catalog {
    /// The reference with a digest that a name stood for, and when.
    pub async fn image_pin(&self, name: &str) -> Result<Option<(String, i64)>, CatalogError> {
        let name = name.to_owned();
        self.database
            .read(move |db| {
                db.prepare_cached("SELECT reference, pinned_at_ms FROM image_pins WHERE name = ?1")
                    .and_then(|mut query| {
                        query
                            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
                            .optional()
                    })
                    .during("read image pin")
            })
            .await
    }

    /// Notes what a name stands for now.
    pub async fn put_image_pin(&self, name: &str, reference: &str, now_ms: i64) -> Result<(), CatalogError> {
        let (name, reference) = (name.to_owned(), reference.to_owned());
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO image_pins (name, reference, pinned_at_ms) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE SET reference = excluded.reference, pinned_at_ms = excluded.pinned_at_ms",
                    params![name, reference, now_ms],
                )
                .during("put image pin")?;
                Ok(())
            })
            .await
    }
}
